"""The terminal: what users read, and how errors become sentences.

`console` prints text as it is, without markup, with the help of `escape`, and `text_table` is its
table; `first_sign` shows that a command has begun, and `progress` its bars; `verbosity` is --quiet
and --verbose, `run_log` keeps the whole story of a run in a file, and `run_record` beside it what
it does now; `resuming` is what resumes it; `sparkline` draws curves; `streams` sets up standard
output and standard error; `errors` explains causes outside of tld, such as a full disk, and holds
UserError. `duration` and `size` are numbers as people would say them.
"""

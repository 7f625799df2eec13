"""The page of `tld data`, with which a user looks through the images and captions of a run.

server.py opens the run and serves it on loopback, app.py has the routes, which only read, and
page.html is the page. What it shows comes from `pipeline.browse`; who may ask is decided by the
guard of `flows.serve`.
"""

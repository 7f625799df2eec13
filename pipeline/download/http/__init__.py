"""Fetching URLs from untrusted tables and servers safely, one request at a time.

`opener.py` fetches a URL with redirects and retries, `failure_causes.py` names why a URL failed,
`messages.py` parses URLs and writes and reads HTTP headers, `responses.py` sends a request and
reads the end of its response, `connections.py` connects to checked addresses, `idle_connections.py`
holds connections for further requests, `addresses.py` says which addresses are allowed and caches
DNS, `rate_limiter.py` limits the requests to each host, and `limits.py` bounds the seconds, bytes
and memory of a fetch.
"""

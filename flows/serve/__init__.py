"""The web service behind `tld serve`.

Read server.py first (loading, running and shutdown), then app.py (the routes), schemas.py (requests
and answers), queue_requests.py (what the queue is asked for), answers.py (waiting for a batch and
streaming its progress), images.py (PNG files with their metadata), card.py (facts about the model)
and metrics.py (Prometheus). openai_api.py has the form of OpenAI's API, problems.py that of errors.
guard.py and connections.py protect the service: access control and body limits, connection limits
and timeouts. listening.py binds its socket, page_files.py serves the web page, the folder page/,
and content_policy.py says what a page may load.
"""

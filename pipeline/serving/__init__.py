"""Request batching for the web service, independent of HTTP.

Read requests.py first (what can be requested), then queue_events.py (what a client is
notified of), batch_queue.py (the queue and the thread that runs its batches) and generate_batch.py
(how a batch becomes images). work.py says what a request costs, previews.py how often unfinished
images are shown; token_counter.py counts the tokens of prompts.
"""

"""The built-in data set of captioned shapes: `dataset.py` defines and draws its images, `server.py`
serves them over HTTP on loopback, and `grader.py` reads the attributes of a caption back from
pixels."""

"""The built-in data set of captioned shapes: `captions.py` has the form of its captions,
`dataset.py` defines and draws its images, `columns.py` is its table, `server.py` serves them over
HTTP on loopback, and `grader.py` reads the attributes of an image back from pixels."""

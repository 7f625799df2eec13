"""Stage 1: every usable row of the input becomes an image in a tar shard.

`stage.py` runs the stage, `shard_downloader.py` downloads one shard with img2dataset,
`shard_recipe.py` computes the digest by which a shard can be reused, `plain_path.py` gives
img2dataset a path that it can write to, `image_opener.py` reads images that exist already, `http/`
fetches one URL safely, `resize.py` turns its bytes into a square image, `color_profile.py` converts
that to sRGB, `outcomes.py` counts what became of each row and finds the rows to retry,
`deduplicate.py` excludes repeated images, `progress.py` shows how far the download is, `report.py`
writes report.html, and `plan.py` estimates a download before it starts.
"""

"""Building blocks of reports: render.py makes HTML pages from templates/, charts.py makes line
charts, and image_grid.py makes grids of captioned images.
"""

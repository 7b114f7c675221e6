"""`label`: asks people about images, those first whose answers help most, and writes labels.csv.

Its modules import the layers below the package, and no framework; `serving` gives the server and its guard.
"""

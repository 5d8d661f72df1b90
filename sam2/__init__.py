"""SAM 2 and SAM 2.1: segment anything in images and videos."""

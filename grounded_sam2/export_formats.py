"""The command `python -m grounded_sam2.export_formats`; see `grounded_sam2.export.formats`."""

from grounded_sam2.export.formats import main

if __name__ == "__main__":
    main()

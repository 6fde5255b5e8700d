"""Parts of the detector in `mmattn_adapters.torchvision`, one idea a file."""

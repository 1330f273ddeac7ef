"""What lies on a disk: published file formats, prepared sets, archives."""

"""Objects drawn by hand or cut out of boxes."""

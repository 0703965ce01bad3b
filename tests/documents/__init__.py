"""What the documents show, taken out of them and tried."""

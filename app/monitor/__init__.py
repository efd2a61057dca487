"""What the model sees, counted, to be held against what it was trained on."""

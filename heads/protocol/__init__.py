"""What a head may say about itself beyond features in and masks out, and how it is checked."""

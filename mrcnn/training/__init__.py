"""The model that `fit` trains, its losses, optimizer and callbacks."""

"""What is measured on outputs."""

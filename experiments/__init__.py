"""The measured tables: how to run them and what they found."""

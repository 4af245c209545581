"""Building blocks of networks: no detector, event, file or recipe here."""

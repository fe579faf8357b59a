"""What operators see and hear: health, metrics, logs and the audit; nothing is decided here."""

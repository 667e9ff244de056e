"""What verl calls to score a response."""

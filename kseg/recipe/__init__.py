"""What the papers train and measure with: losses, metrics, schedules, optimizer."""

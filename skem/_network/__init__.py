"""What the estimators of torch networks share."""

"""What a calibrator is made of: curves, their fitting, judged scores, and the measures of how well it is calibrated."""

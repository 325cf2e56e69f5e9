"""Making a model's folder out of somebody's file."""

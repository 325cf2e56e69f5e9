"""What tests share: tiny models, small fakes."""

"""What a newcomer meets after `make demo`: verbs, pictures and notebooks over a home with stories in it."""

"""Coverage of the vendor documents: each line's client method, sandbox route and test."""

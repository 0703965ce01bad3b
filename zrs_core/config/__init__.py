"""Configuration written as text: ZConfig sections and storage URIs."""

"""A provider you can script: any pace, any fault, on the wire of the real ones."""

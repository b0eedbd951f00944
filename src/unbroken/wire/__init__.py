"""How bytes carry events, both ways: framings, dialects, and the codec that pairs them."""

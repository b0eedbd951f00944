"""Streams of records that outlive their producers; one file a store, found by its URL."""

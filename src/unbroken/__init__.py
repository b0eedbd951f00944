"""unbroken: LLM streams that survive."""

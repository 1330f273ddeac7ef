"""Attention: many heads with a cache, one fused call, rotary positions."""

"""Images as pure functions under jit and vmap: levels, geometry, colour, views."""

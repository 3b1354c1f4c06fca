"""One module per family of vectors; each has make(out), which adds cases to a VectorFile."""

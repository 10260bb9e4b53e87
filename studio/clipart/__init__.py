"""Flat drawings and the sheet of triangles that bends them: what animated clipart starts from."""

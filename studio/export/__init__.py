"""A scene as files that other people's tools open: splats, textured meshes, turntables."""

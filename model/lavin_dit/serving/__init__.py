"""Answers predictions from a bundle over HTTP. Needs numpy, onnxruntime, Pillow and a web server only; neither torch nor configuration."""

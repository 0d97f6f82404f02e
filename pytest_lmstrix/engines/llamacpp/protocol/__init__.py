"""What llama.cpp's server sends."""

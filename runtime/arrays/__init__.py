"""Operations on label maps and images as NumPy arrays."""

"""From loops and contractions to LLVM text: the writer, elements, micro-kernels and targets."""

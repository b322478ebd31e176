"""Drawing images from a model, every value computed once: programs, their compiler, and the engines that run them."""

"""What lies between Python and native code: backends, the registration of ops, checks of their arguments, layouts."""

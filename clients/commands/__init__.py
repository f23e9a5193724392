"""One module per verb of the `softrec` command; each holds a plain function that the command line calls."""

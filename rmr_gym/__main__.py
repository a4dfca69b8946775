"""`python -m rmr_gym` is `rmr-gym`."""

from rmr_gym.cli import main

main()

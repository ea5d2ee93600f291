"""The tests mirror the packages. A name says what would be false if the code were wrong."""

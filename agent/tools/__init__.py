"""What the model may call. Each tool takes what the model wrote and answers in words for it to read, failures too."""

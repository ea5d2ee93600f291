"""What is kept of the traffic: facts about exchanges, without secrets, and what can be concluded from them."""

"""Images and boxes on their way into the model, under upstream's names."""

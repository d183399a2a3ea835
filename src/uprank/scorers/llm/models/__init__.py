"""Language models behind one contract: the OpenAI SDK, LangChain, LlamaIndex, or a function. See ``chat.ChatModel``."""
